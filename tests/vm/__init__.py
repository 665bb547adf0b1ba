"""A virtual machine for what this machine's kernel may lack, emulated: no rights on the processor are needed, and no network.

Belongs here: the machine, and what runs in it. Its kernel is Debian's, its files are copies of this machine's.
"""
