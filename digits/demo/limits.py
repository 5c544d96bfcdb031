"""What the server of the page bears at most."""

MAX_FILE_BYTES = 20_000_000
MAX_PIXELS = 16_000_000  # of a picture that is decoded at full size
MAX_PIXELS_REDUCED = 50_000_000  # of a JPEG, which can be decoded at a reduced size

# Drawings, and other pictures no larger, are read by processes of their own, so that no photo delays them.
SMALL_BYTES = 1_000_000
SMALL_PIXELS = 2_000_000
SMALL_READERS = 2  # processes
LARGE_READERS = 1  # as a large picture takes the memory
SMALL_ROOM = 32_000_000  # bytes of pictures that are held at once
LARGE_ROOM = 60_000_000

MAX_WAITING = 200  # pictures of a kind at once; to further ones the server is busy
PATIENCE = 2.0  # seconds: who sends or is read for longer gives way when others wait
MAX_SECONDS = 10.0  # to read a picture, even if nobody waits
MAX_SENDING = 60.0  # seconds to send one, likewise
MAX_QUEUED = 60.0  # seconds before a picture's turn comes
