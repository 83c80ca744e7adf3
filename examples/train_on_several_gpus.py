"""Train one ResNet on several GPUs. Start it with

    torchrun --standalone --nproc-per-node 2 train_on_several_gpus.py

with the number of GPUs in place of 2. Without a GPU it runs too, with as many processes on the processor.
"""

import torch

from cnnlesson.data import Batches, shapes, split
from cnnlesson.distributed import data_parallel, join_processes
from cnnlesson.models import resnet18
from cnnlesson.training import train

part = join_processes()  # (0, 2) in the first of two processes, (1, 2) in the second
torch.manual_seed(part[0])  # dropout differs from process to process; all start with the weights of the first

train_set, val_set = split(shapes(seed=0).train, (0.9, 0.1), seed=0)
train_batches = Batches(train_set, batch_size=64, image_size=64, seed=0, augment=True, part=part)
val_batches = Batches(val_set, batch_size=64, image_size=64, part=part)

model = data_parallel(resnet18(num_classes=10).to(train_batches.device), train_batches)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

for epoch in train(model, train_batches, val_batches, optimizer, epochs=5, checkpoint="results/several_gpus.pt"):
    if part[0] == 0:  # all processes have the same figures: one of them prints
        print(f"{epoch.number:2d}  loss {epoch.train_loss:.3f}  validation {epoch.val_accuracy:.1%}", flush=True)

torch.distributed.destroy_process_group()
