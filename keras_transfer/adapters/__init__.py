"""Step 4: low-rank adapters into a model, out of it, merged, saved, read.

In reading order: `lora` (what is asked for), `places` and `targets` (which layers are meant), `matrices` (how a kernel
is a matrix), `layers` (what a layer becomes while it carries an adapter), `beside` (head, biases and norms that train
with it), `attach` (onto a model), `switch` (on, off, merged, out again), `restoring` (in a `.keras` file),
`base_identity` and `files` (as a folder), `peft` (in PEFT's files). `keras_internals` is all that touches the private
side of Keras.
"""
