"""The parts that let Waybill run with nothing installed, each a process of its own."""
