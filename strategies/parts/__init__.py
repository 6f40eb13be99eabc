"""What methods are built from.

Parts that several methods share: buffers, importance, per_example, quadratic and layers. Parts of one method that need
an import of their own, and are imported when they are used: columns (PNN), subnet (SupSup), vae (generative replay) and
qp (GEM).
"""
