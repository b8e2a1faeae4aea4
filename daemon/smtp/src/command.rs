//! One command line, taken apart: verbs, arguments, ESMTP parameters.
