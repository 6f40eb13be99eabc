"""Where files lie: a disk or an object store, behind one interface."""
