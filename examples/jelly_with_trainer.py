"""JELLY in transformers' Trainer, from MiniLM or the model that is named: a minute on a CPU."""

import sys
from pathlib import Path

import transformers
from peft import get_peft_model

from graftlab.methods.jelly.callback import JellyCallback
from graftlab.methods.jelly.tuner import JellyConfig

GOOD = ("a joy to watch", "warm and funny", "moving to the end", "clever, brave and kind")
BAD = ("a dull mess", "far too long", "without any wit", "clumsy, loud and cold")

name = sys.argv[1] if len(sys.argv) > 1 else "sentence-transformers/all-MiniLM-L6-v2"
transformers.set_seed(0)
tokenizer = transformers.AutoTokenizer.from_pretrained(name)
base = transformers.AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
config = JellyConfig(mode="dynamic", target_modules="all-linear", task_type="SEQ_CLS")
model = get_peft_model(base, config)
phrases = [(words, label) for label, group in enumerate((BAD, GOOD)) for words in group]
rows = [{**tokenizer(f"The film is {words}."), "labels": label} for words, label in phrases * 8]

args = transformers.TrainingArguments("jelly", max_steps=30, learning_rate=2e-3, save_steps=10)
callback = JellyCallback(probe=tokenizer.pad(rows[:8], return_tensors="pt"))
trainer = transformers.Trainer(
    model, args, train_dataset=rows, processing_class=tokenizer, callbacks=[callback]
)
# killed and started again, it goes on from its last checkpoint to the same end
trainer.train(resume_from_checkpoint=any(Path("jelly").glob("checkpoint-*")))
trainer.save_model(
    "jelly/adapter"
)  # PeftModel.from_pretrained reads it after `import graftlab.auto`
print(callback.facts)
