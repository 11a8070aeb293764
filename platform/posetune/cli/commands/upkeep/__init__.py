"""What does a home need now and then?"""
