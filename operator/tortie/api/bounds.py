"""How large the objects that policies are compiled to may become: etcd takes 1.5 MB, metadata and status included."""

# Of a RuleSet: more rules than these, or more bytes of spec, become another part.
MAX_RULES = 2000
MAX_RULE_SET_BYTES = 512_000
# Of a rule: more of these become another rule.
MAX_PEERS = 1000
MAX_PORTS = 1000
# Of those that a rule, or a RuleSet, stands for, the first ones are named for people.
MAX_SOURCES = 16
