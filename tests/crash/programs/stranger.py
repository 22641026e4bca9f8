"""A process that does nothing but be there."""

import os
import threading

if __name__ == "__main__":
    os.setpgid(0, 0)
    print("here", flush=True)
    threading.Event().wait()
