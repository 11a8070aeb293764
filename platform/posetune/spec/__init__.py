"""What does a sweep file say, and is it right?

Main path: `loading.load_sweep` reads the file with `documents` (YAML that remembers its lines) into
the models of `sweep`, finds the trainable with `registration`, and checks every field with
`parameters` and the trainable's own configuration model. `fields` and `template` say what there is.
"""
