"""Everything of one user's, erased: what keeps something of them erases it, each its own."""
