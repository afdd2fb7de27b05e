"""`zest bench download`: downloads by hf_xet, by zest_hf and by others, side by side on this machine.

`command` reads the arguments, `comparison` is a run: `world` sets the Hub and the seeder up, `cases` says how each of
those who are compared is run, `measure` runs one, `processes` reads what it costs. `figures` and `noise` are what
follows from that, `report` and `picture` show it. `http_files`, `tcp_files` and `torrent_files` are the yardsticks,
`kernels` is `--synthetic`.
"""
