"""Facts that come with this version: the districts of Chongqing, the calendar of China."""
