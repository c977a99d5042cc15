"""Transformers' Trainer fine-tunes a tiny T5 with random weights on sequences to be reversed."""

import sys
import tempfile

import torch
from transformers import T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments

torch.manual_seed(0)
rows = torch.randint(2, 30, (16, 6))
examples = [{"input_ids": row, "labels": row.flip(0)} for row in rows]
config = T5Config(
    vocab_size=32,
    d_model=16,
    d_kv=8,
    d_ff=32,
    num_layers=1,
    num_heads=2,
    decoder_start_token_id=0,
    feed_forward_proj="relu",
)
arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=4,
    max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 3,
    save_strategy="no",
    report_to=[],
    use_cpu=True,
    disable_tqdm=True,
)
trainer = Trainer(model=T5ForConditionalGeneration(config), args=arguments, train_dataset=examples)
result = trainer.train()
print(f"loss {result.training_loss:.4f}")
