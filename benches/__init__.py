"""What is claimed about speed, measured beside its peers in the same run: ``python -m benches``.

``measure`` times, ``figures`` says what a number is and what it should reach, ``machine`` where it was taken,
``table`` writes README.md. Every other module is a bench: ``run(effort)`` gives its figures and checks that what it
timed did its job.
"""
