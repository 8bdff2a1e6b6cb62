"""What happens to a run from outside: kills, full disks, signals, bad input, hostile files, races.

`python -m pytest -m campaign` runs all of it, minutes long; tests/test_campaign.py a short form.
"""
