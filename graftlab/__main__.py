from graftlab.cli import main

main()
