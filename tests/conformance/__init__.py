"""Who reaches whom on a real cluster, as tables: each row has a name, policies, and what must come of them.

Belongs here: the tables (`*_rows.py`), how a row is read (`rows`), the pods and services that they are about (`people`),
the packets (`town`), and connections that stay open (`talks`). Does not: other clusters and policies that are drawn
(`tests.agent.test_firewall_random`), nor what needs no kernel (`tests.policy`).
"""
