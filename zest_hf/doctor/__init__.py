"""`zest doctor`: looks at everything that downloads and seeding need, and says what to do where something is wrong.

``finding``  what a check says, and a runner that gives each its deadline
``here``     checks of this machine: versions, directories, ports, the switch
``network``  checks of others: the Hub, the CAS, trackers, names
``command``  the command line
"""
