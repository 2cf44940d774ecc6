"""Write the files of vectors: python -m tests.vectors."""

from tests.vectors.files import FILES, FOLDER, text_of

FOLDER.mkdir(exist_ok=True)
for name in FILES:
    (FOLDER / name).write_text(text_of(name), "ascii")
    print(f"wrote docs/vectors/{name}")
