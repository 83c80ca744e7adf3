"""Lesson 4, Training CNNs: AlexNet & ResNet. The helper package behind the notebooks.

models/       AlexNet and ResNet, as the papers and the slides draw them
training.py   the training loop: train, train_one_epoch, evaluate, Epoch
checkpoint.py all that a training needs to go on where it stopped, in one file
whole_file.py files that are there whole or not at all
anatomy.py    layer_table: shapes, memory, parameters and multiply-adds of any network
audit.py      the published figures of AlexNet beside what follows from its layers
data/         the images: shapes made on the spot, TinyImageNet, CIFAR-10, folders; splits, folds, leaks, batches
exercise.py   the exercise: a network at every point of a grid of hyper-parameters
signals.py    gradient_norms and residual_sizes: how large the signals in a network are
depth.py      what depth does: plain and residual networks of several depths, trained alike
depth_run.py  the same from a shell: networks, tables and figures on disk
reference/    measured results, each with a record of how it was made
checks/       one module a notebook: says whether an answer is right, and names the mistake where it is not
notebook.py   what the notebooks start with: the device in words, and the images
plots.py      the figures, and the same facts as text
memory.py     one setting of the C library that makes training on a processor faster
__main__.py   python -m cnnlesson exercise ..., depth ..., deepen ...
"""
