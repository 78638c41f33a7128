"""Emits variants, compiles them, and reads what the compiler made of them."""
