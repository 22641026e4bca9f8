"""How people write workflows: @task, @workflow, @graph, documents, conditions, and the registry.

Promises: what is wrong with a definition is said when it is defined, naming the path.
May import: model, errors, settings. Not kernel: what runs a definition is found through `ambient`.
"""
