"""The model zoo: models as data, a store of their files keyed by content, and what is made of them, each with its recipe.

``registry`` reads which models there are, ``store`` keeps files, ``pull``, ``quantise``, ``convert`` and ``external``
make artefacts, ``header`` tells what a GGUF file holds, and ``references`` puts ``zoo:NAME/Q4_0`` into recipes.
"""
