"""What is special about the nets: heads, and faster or portable forms of them."""
