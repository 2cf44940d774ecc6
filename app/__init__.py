"""Smart rest stations: people come to places; doors open; visits happen; reports count.

The rooms, in the one order in which they may import each other:

    db, errors, clock, settings   what everything stands on
    audit                         who changed what
    places                        where: units, districts, stations, their hours and facilities
    people                        who: workers and administrators
    alerts                        what somebody should look at
    visits                        who is inside, and what they use
    doors                         scan -> decision -> unlock
    reports                       what happened, counted
    usual                         what is usual there, what is to be expected, what is known now
    feed                          what every app may show of all stations
    privacy                       a person's data: export, erase, retain
    jobs                          what runs by the clock
    api                           HTTP, one module per audience
    pages                         the worker's phone page, static
    main                          create_app: the one place where things are wired
    agent                         what runs at the door, a client of the API
    conformance                   a played server that judges a controller
    demo                          a living sample city
    generate                      months of a believable city's history, by seed
    cli                           the command line
"""
