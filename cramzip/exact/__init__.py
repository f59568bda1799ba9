"""A Llama model in exact arithmetic with NumPy alone: the same bits on every machine. formats/exact.md says how.

    weights       a model folder: its shape, and int8 weights whose bounds are checked
    probe         load: a model that was seen to give the right bits here
    lanes         encode_lanes, decode_lanes: tokens to bytes and back
    learner       what a text says of itself while it is coded; made of `bias` and `contexts`
    adapter       a matrix before the head, learned from the text while it is coded
    dictionary, codebook, vectors             what lanes may begin with
    run           lanes on their way through the model
    llama         the stack of layers; embed, states, forward, logits
    layouts, wide                             models with float weights, as integers, and their layers
    probabilities, tokencoder                 what the logits say, as integers, and a range coder that takes them
    arithmetic, rotations, product, blocks, cache     what the layers are made of
    threads       how work is spread over the cores

Knows nothing of torch, of tokenizers, of `.cram` files, or of any path but that of a model folder.
"""

WEIGHTS_NAME = "exact.safetensors"
CODEBOOK_NAME = "mem.safetensors"
