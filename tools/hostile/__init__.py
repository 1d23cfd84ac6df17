"""Give forgetbench damaged and hostile inputs, and count how each ends.

python -m tools.hostile                  all of them (some minutes)
python -m tools.hostile --jobs 8         the same, eight at a time
python -m tools.hostile --every 10       each tenth
python -m tools.hostile manifests 'rows/*bom*'   groups, or cases by name
python -m tools.hostile --write          all, and docs/results/hostile.md anew
"""
