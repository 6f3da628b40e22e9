"""Tell orders apart that a provider's list shows alike: the hash of what was ordered, beside that of the bytes sent.

Null in the rows there are: an order without a hash is equal to no other. Adding a column without a default rewrites
nothing, so this is safe while serving.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "202611281100"
down_revision: str | None = "202611221730"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("submissions", sa.Column("order_hash", sa.LargeBinary(), nullable=True))
