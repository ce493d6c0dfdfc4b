// Before anything is drawn: the theme and the language somebody has chosen here before. Nothing is kept but these two.
(() => {
  const kept = (name) => {
    try {
      return localStorage.getItem(`tokencached.${name}`);
    } catch {
      return null;
    }
  };
  const root = document.documentElement;
  const theme = kept("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const language = kept("language");
  if (language === "en" || language === "zh-CN") root.lang = language;
})();
