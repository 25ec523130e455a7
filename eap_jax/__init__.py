"""Edge attribution patching of decoder-only transformers: arrays in, arrays out.

What to import, one module a line; importing the package itself loads none of them.

  config        ModelConfig: the shape of a model, and what differs from family to family
  rope          RopeScaling, frequencies: rotary frequencies and how they are stretched
  transformer   Transformer, Taps, init_parameters: forward pass that shows every read and write
  objective     Batch, self_entropy: texts with their targets, and the loss
  batching      Text, pad_into_batches, in_order: texts to batches, and results back in their order
  attribution   attribute, attribute_prefixes: scores of all edges in one jitted pass
  branch        branch_step, branch_head: scores from the reader's branch, computed without the write
  streaming     attribute_streamed, Weights: the same, layer by layer, for models beyond the memory
  generation    generate, finished: answers to prompts
  sampling      Sampling, choose: greedy or sampled, and when to stop
  graph         writer_names, reader_names, edge_mask, parse_edge, to_block: the edges (numpy only)
  ablation      cut_losses: what cutting an edge really does to the loss
  streamed_ablation  cut_losses_streamed: the same, layer by layer
  circuit       circuit_losses: the loss when only some edges are kept
  streamed_circuit  circuit_losses_streamed: the same, layer by layer
  metrics       intensity, complexity, kurtosis, diversity, output_entropy: measures of a stack of
                score matrices (numpy and scipy only)
  sharding      make_mesh, place_parameters, place_batch, layout: several devices
  parameters    parameter_axes, parameter_shapes: names and shapes of the parameter tree
  axes          AXES: what each axis letter means

Inside these: attention (attend), layers (rms_norm, linear), places (Places, Kind: where tokens sit,
and how layers differ), block (Block, Layer: one layer in four stages), backward (block_gradients),
head (target_losses: the output head, some targets at a time),
steps (forward_step, backward_step: the attribution pass cut at its layers), writes (contract: the
buffer of all writes), decoding (prefill, decode: the compiled programs of generation), slots (Slots:
a batch at work), checks (check_array: assertions on arguments).
"""
