"""How convolutional networks are trained: the package behind the notebooks of Lesson 4.

Read models/alexnet.py first, then training.py.

The core, read in class:

models/         AlexNet and ResNet, as the papers and the slides draw them
training.py     the training loop: train, train_one_epoch, evaluate, predict, Epoch
data/           data sets, splits, a search for leaks, and batches
anatomy.py      layer_table: shapes, memory, parameters and multiply-adds of any network
signals.py      how large the gradients and activations in a network are
runtime/        what training needs from the machine: devices, memory, checkpoints, files

Searching and whole experiments:

search/         GridSearch: a grid of trials that resumes after a crash, on one machine or several
experiments/    the exercise, the depth experiment and the atlas, as run from a shell
__main__.py     python -m cnnlesson exercise | status | depth | deepen | atlas | selftest

Results:

points.py       the points of a grid, and how tables and text name them
results.py      the results table of a search
noise.py        which points of a table cannot be told apart
report.py       the report that a student hands in, and the comparison with a reference
reference/      measured results, each with a record of how it was made
doctor.py       what is wrong with a training, and what to try

Teaching:

plots/          the figures, each with alt text and its facts as text
widgets/        explorers, and the live board of a training
checks/         one module per notebook: what is wrong with an answer
notebook.py     what every notebook starts with
"""

__version__ = "0.2.0"
