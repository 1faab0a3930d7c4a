"""An import-linter contract over names that match shell patterns, which its own contracts cannot say."""

from fnmatch import fnmatchcase

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class PatternContract(Contract):
    """No module that matches `importers` imports, directly, one that matches `forbidden`.

    An import is let through when `importer -> imported` matches one of `allowed`. A `*` matches dots too.
    """

    importers = fields.ListField(subfield=fields.StringField())
    forbidden = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 (the base class names it)
        found = [
            f"{importer} -> {imported}"
            for importer in sorted(graph.modules)
            if _matches(importer, self.importers)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if _matches(imported, self.forbidden)
        ]
        broken = [edge for edge in found if not _matches(edge, self.allowed)]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for edge in check.metadata["broken"]:
            output.print_error(f"- {edge}", bold=False)
        output.new_line()


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
