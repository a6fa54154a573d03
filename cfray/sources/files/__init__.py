"""Files as sources: a module for each format, and what the formats share.

``base`` says what a file source is; ``kinds`` which kind reads which file; ``listing``
finds files and pins them; ``rowgroups`` reads Parquet, also the stores' exports.
"""
