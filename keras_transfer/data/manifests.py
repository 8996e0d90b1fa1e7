"""CSV"""


def manifest(path):
    raise NotImplementedError
