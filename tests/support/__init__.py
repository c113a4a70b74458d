"""What functional and interoperability tests share: real processes, raw HTTP, tools."""
