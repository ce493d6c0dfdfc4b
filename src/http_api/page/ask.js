// The dialog before anything is done, and what has come of it.

import { $, mark, say, shape } from "./dom.js";
import { act } from "./net.js";
import { adviceOf, sentence, t } from "./words.js";

const SHAPES = { renewed: "fresh", accepted: "fresh", handed_out: "fresh", refused: "dead", failed: "stale", waiting: "waiting" };

/** Puts the question; `done(answer)` hears what the server says, `over()` that the session has ended. */
export class Ask {
  constructor({ done, over }) {
    Object.assign(this, { done, over });
    this.dialog = $("ask");
    $("ask-yes").addEventListener("click", () => this.go());
    this.dialog.addEventListener("close", () => {
      this.turn += 1;
      // The browser has given the focus back already, unless that row was drawn anew; somebody may have moved it on since.
      if (document.activeElement === document.body) this.from?.focus();
    });
    this.turn = 0;
  }

  put(action, credential, from) {
    Object.assign(this, { action, credential, from });
    this.turn += 1;
    const ticket = !credential.can_probe && credential.type.includes("ticket");
    say($("ask-title"), t(`ask_${action}`));
    say($("ask-what"), `${credential.app} · ${credential.type}`);
    say($("ask-text"), t(action === "refresh" && ticket ? "ask_refresh_ticket" : `ask_${action}_text`));
    say($("ask-yes"), t(action));
    say($("ask-no"), t("cancel"));
    this.tell("");
    mark($("ask-yes"), "disabled", null);
    $("ask-yes").hidden = false;
    this.dialog.showModal();
    $("ask-no").focus();
  }

  tell(text, advice, look) {
    const place = $("ask-outcome");
    place.replaceChildren();
    if (!text) return;
    const line = document.createElement("p");
    if (look) line.append(shape(look), " ");
    line.append(text);
    place.append(line);
    if (advice) {
      const more = document.createElement("p");
      more.className = "muted";
      more.textContent = advice;
      place.append(more);
    }
  }

  async go() {
    const turn = this.turn;
    mark($("ask-yes"), "disabled", true);
    this.tell(t("asking"), null, "renewing");
    let said;
    try {
      const answer = await act(this.credential, this.action);
      this.done(answer);
      const well = ["renewed", "accepted", "handed_out", "overtaken", "not_checked"].includes(answer.verdict);
      said = [t(`did_${answer.verdict}`), well || !answer.advice ? "" : sentence(adviceOf(answer)), SHAPES[answer.verdict]];
    } catch (error) {
      if (error.status === 401) {
        this.dialog.close();
        this.over();
        return;
      }
      const words = error.status === 429 ? t("did_often", error.retry_after_s ?? 1) : error.status ? t("did_error", error.message) : t("did_network");
      said = [words, "", "stale"];
    }
    // Somebody has closed it, or asks something else by now.
    if (turn !== this.turn || !this.dialog.open) return;
    this.tell(...said);
    $("ask-yes").hidden = true;
    say($("ask-no"), t("close"));
    $("ask-no").focus();
  }
}
