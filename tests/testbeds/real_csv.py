"""Delimited text as Excel, pandas, Spark and people write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.testbeds.real_inputs import Answer, case, row, text, vector


@case({"reviews.csv": Answer("csv")}, needs=("pandas",))
def csv_pandas_index(folder: Path) -> None:
    """Write pandas' index into a first column without a name."""
    import pandas as pd

    records = [row(n) | {"embedding": str(vector(n))} for n in range(20)]
    pd.DataFrame(records).to_csv(folder / "reviews.csv")


@case({"docs.csv": Answer("csv")}, needs=("pandas",))
def csv_numpy_repr(folder: Path) -> None:
    """Write vectors as numpy prints them, over several lines and longer than the text."""
    import pandas as pd

    wide = [np.random.default_rng(n).standard_normal(384).astype(np.float32) for n in range(20)]
    records = [row(n) | {"embedding": wide[n]} for n in range(20)]
    with np.printoptions(threshold=1000):
        pd.DataFrame(records).to_csv(folder / "docs.csv", index=False)


@case({"part-00000.csv": Answer("csv", text="body", vector="", source={"escape": "\\"})})
def csv_backslash(folder: Path) -> None:
    r"""Write quotes inside a field as Spark does: ``\"``."""
    lines = ["id,title,body"]
    lines += [
        f'{number},"The \\"best\\" of {number}","He said \\"never\\" to me, twice"'
        if number % 2
        else f"{number},Plain {number},nothing special in it"
        for number in range(20)
    ]
    (folder / "part-00000.csv").write_text("\n".join(lines) + "\n")


@case({"export.csv": Answer("csv", vector="")})
def csv_excel_sep(folder: Path) -> None:
    """Write what Excel writes: ``sep=;``, a mark of the byte order, CRLF, decimal commas."""
    lines = ["sep=;", "id;title;body;price"]
    lines += [
        f'{n};Überschrift {n};"Zeile eins\r\nZeile zwei; mit Semikolon";1{n % 10},50'
        for n in range(20)
    ]
    (folder / "export.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig") + b"\r\n")


@case(
    {
        "collection.tsv": Answer(
            "csv",
            id="pid",
            text="passage",
            title="",
            vector="",
            source={"delimiter": "\t", "quote": "none"},
        )
    }
)
def tsv_unquoted(folder: Path) -> None:
    """Write passages that begin with a quote into a file that knows no quotes."""
    lines = ["pid\tpassage"]
    for number in range(37):
        passages = [text(number)] * 5
        passages[1] = f'"Quoted title" is how passage {number} begins'
        passages[3] = f'"An unbalanced quote opens passage {number}'
        lines.append(f"{number}\t{passages[number % 5]}")
    (folder / "collection.tsv").write_text("\n".join(lines) + "\n")


@case({"notes.txt": Answer("csv", text="body", vector="", source={"delimiter": "|"})})
def pipes_in_txt(folder: Path) -> None:
    """Write a table with pipes into a file named .txt, commas in its texts."""
    lines = ["id|title|body", *(f"{n}|Title {n}|{text(n)}, and, so, on" for n in range(20))]
    (folder / "notes.txt").write_text("\n".join(lines) + "\n")


@case(
    {"export.csv": Answer("csv", id="Kennung", text="Inhalt", title="Überschrift", vector="Vektor")}
)
def german_names(folder: Path) -> None:
    """Write a table whose columns have German names."""
    lines = ["Kennung,Überschrift,Inhalt,Vektor,Geändert am"]
    lines += [
        f'K{n:03d},Titel {n},{text(n)},"{vector(n)}",2024-05-{n % 28 + 1:02d}' for n in range(20)
    ]
    (folder / "export.csv").write_text("\n".join(lines) + "\n", "utf-8")


@case({"reviews.csv": Answer("csv", id="column_1", text="Text", title="")}, needs=("pandas",))
def reviews(folder: Path) -> None:
    """Write a frame with pandas whose index is the only unique field."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "ProductId": [f"B{n // 2}" for n in range(30)],
            "Time": [1351123200 + 7 * n for n in range(30)],
            "Text": [text(n) for n in range(30)],
            "embedding": [str(vector(n)) for n in range(30)],
        },
        index=range(0, 90, 3),
    )
    frame.to_csv(folder / "reviews.csv")


@case({"docs.csv": Answer("csv", text="body", title="", vector="", source={"encoding": "cp1252"})})
def windows_text(folder: Path) -> None:
    """Write a table in the encoding of Windows."""
    lines = ["id;body", *(f"{n};Übergröße {text(n)}" for n in range(20))]
    (folder / "docs.csv").write_bytes(("\n".join(lines) + "\n").encode("cp1252"))


@case({"docs.csv": Answer("csv", vector="", source={"columns": []})})
def delimiter_at_the_end(folder: Path) -> None:
    """Write a delimiter behind the last field of every line."""
    lines = ["id,title,body,", *(f"{n},Title {n},{text(n)}," for n in range(20))]
    (folder / "docs.csv").write_text("\n".join(lines) + "\n")


@case({"docs.csv": Answer("csv", vector="", source={"skip_lines": 2})})
def comments_before_the_header(folder: Path) -> None:
    """Write comments, one of them with commas and quotes, and a blank line before the header."""
    lines = ["# exported 2024", '# "a, b", c', "", "id,title,body"]
    lines += [f"{n},Title {n},{text(n)}" for n in range(20)]
    (folder / "docs.csv").write_text("\n".join(lines) + "\n")


@case(
    {
        "rows.csv": Answer("csv", vector="", quarantined=1),
        "id.csv": Answer("csv", vector="", quarantined=1),
        "twice.csv": Answer("csv", vector="", quarantined=1),
    }
)
def one_damaged_row(folder: Path) -> None:
    """Write quoted texts, a count of the rows as the last line, no id, and the header twice."""
    lines = [f'{n},"Title, {n}","{text(n)}, and so on"' for n in range(20)]
    header = "id,title,body"
    (folder / "rows.csv").write_text("\n".join([header, *lines, "(20 rows)"]) + "\n")
    (folder / "id.csv").write_text("\n".join([header, *lines, ',"No id","x, y"']) + "\n")
    (folder / "twice.csv").write_text("\n".join([header, *lines, header, "20,a,b"]) + "\n")


@case({"chunks.csv": Answer("csv", id="doc_id+chunk", text="text", title="", vector="")})
def chunks_of_documents(folder: Path) -> None:
    """Write the number of a chunk before the id of its document."""
    lines = ["chunk,doc_id,text", *(f'{n % 4},d{n // 4},"{text(n)}"' for n in range(20))]
    (folder / "chunks.csv").write_text("\n".join(lines) + "\n")
