"""The one exception whose message is meant for the person at the keyboard."""


class InputError(ValueError):
    """Something given from outside is wrong: a file, an image, an option.

    The message is one sentence that names the thing and the remedy. Scripts print it without a traceback and exit
    with status 2; nodes put it into their diagnostics. File names in it that are not UTF-8 get escapes: neither ROS nor
    every terminal takes them as they are.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode("utf-8"))
