"""How a model is run, in the formats of MELT and of the runtimes that it drives: read one, write another, and tell what gets lost.

model_config    the fields, as MELT's model YAML has them; what a reader and a writer return
texts           how MELT's YAML and llama.cpp's arguments quote a prompt's texts
melt            MELT's model YAML, and the JSON of LLMFarmEval, which is the same with plain texts
llama_cpp       arguments of llama.cpp's main and server; fields of our workload ``llama``
llmfarm         LLMFarm's chat settings
mlc             mlc-chat-config.json
formats         all of them by name; text in, text out
"""
