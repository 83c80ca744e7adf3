"""Lesson 4, Training CNNs: AlexNet & ResNet. The helper package behind the notebooks.

models/         AlexNet and ResNet, as the papers and the slides draw them
training.py     the training loop: train, train_one_epoch, evaluate, Epoch
checkpoint.py   all that a training needs to go on where it stopped, in one file
atomic_write.py   files that are there whole or not at all
anatomy.py      layer_table: shapes, memory, parameters and multiply-adds of any network
audit.py        the published figures of AlexNet beside what follows from its layers
data/           the images: shapes made on the spot, TinyImageNet, CIFAR-10, folders; splits, folds, leaks, batches
search.py       GridSearch: a grid of trials that survives whatever stops it; forecast, workers, status
trials.py       its trials on Optuna: each point of the grid ends once
trial_run.py    one trial, with what goes wrong in it in one line
workers.py      processes that run trials, several at once
forecast.py     how long a search will take, from a few real steps
progress.py     what a search shows while it runs
doctor.py       says in words what is wrong with a training
results.py      what the table of a search's results says
report.py       the report that a student hands in, and a run beside a reference run
exercise.py     the exercise from a shell: the grid, the decays at its best point, the report
predictions.py  what a trained network says of each image
signals.py      gradient_norms and residual_sizes: how large the signals in a network are
depth.py        what depth does: plain and residual networks of several depths, trained alike
depth_run.py    the same from a shell: networks, tables and figures on disk
reference/      measured results, each with a record of how it was made
checks/         one module a notebook: says whether an answer is right, and names the mistake where it is not
notebook.py     what the notebooks start with: the device in words, and the images
plots/          the figures, each with alt text and the same facts in words
widgets/        explorers to move and watch, and the live board of a training
machine.py      this machine: the device in words, its memory, a setting that makes training on a processor faster
__main__.py     python -m cnnlesson exercise ..., status ..., depth ..., deepen ...
"""

from importlib.metadata import version

__version__ = version("cnnlesson")
