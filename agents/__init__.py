"""Everything that chooses temperatures: stock RL agents, learned policies, rules. Imported by module, one by one."""
