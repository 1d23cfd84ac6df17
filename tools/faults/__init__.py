"""Interrupt forgetbench at every file operation, run the same command again, and compare the bytes.

python -m tools.faults                       all commands, all faults, at every operation (hours)
python -m tools.faults --every 10            at each tenth operation
python -m tools.faults export --fault kill   some commands, some faults
python -m tools.faults --write               all, and docs/results/faults.md anew
"""
