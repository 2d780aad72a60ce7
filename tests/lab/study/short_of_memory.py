"""A worker process in which memory runs out with more than three runs."""

from supple.lab.study import worker
from supple.lab.study.manifest import open_manifest


class ShortOfMemory(worker.Worker):
    def _train(self, number: int, lost: str | None) -> None:
        if open_manifest(self.folder).part(number).size > 3:
            raise MemoryError("can't allocate memory")
        super()._train(number, lost)


worker.Worker = ShortOfMemory  # type: ignore[misc]
worker.main()
