"""Judges what deploy/ has for Kubernetes and compose, and prints it as JSON.

deploy.py chart FOLDER VALUES     Helm's own linter, its rendering with these values, the schemas of Kubernetes: the
                                  documents, or exit code 1 and what is wrong
deploy.py compose FILE NAME=VALUE...
deploy.py yaml FILE
"""

import json
import re
import sys

import yaml

VERSIONS = ["1.25.0", "1.31.0", "1.37.0"]


def chart(folder, values):
    import helm_python
    import kubernetes_validate

    linted = helm_python.lint(folder)
    if linted["errors"] or any(message["severity"] > 1 for message in linted["messages"]):
        sys.exit(f"lint: {linted}")
    with helm_python.Chart.load(folder) as loaded:
        rendered = loaded.render(json.loads(values), name="demo", namespace="prod")
    documents = []
    for name, text in rendered.items():
        if name.endswith(".yaml"):
            documents += [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        # Of the Prometheus operator, whose schema is not among Kubernetes's own.
        if document["kind"] != "ServiceMonitor":
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)
    return documents


def compose(path, *variables):
    from compose_spec import PyCompose

    given = dict(variable.split("=", 1) for variable in variables)
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"\$\{(\w+)\}", lambda found: given[found.group(1)], file.read())
    document = yaml.safe_load(text)
    PyCompose.from_json(json.dumps(document)).validate()
    return document


def plain(path):
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


if __name__ == "__main__":
    try:
        print(json.dumps({"chart": chart, "compose": compose, "yaml": plain}[sys.argv[1]](*sys.argv[2:])))
    except Exception as error:  # whatever kind each of the judges raises
        sys.exit(f"{type(error).__name__}: {error}")
