"""Networks, fakes and checks that several tests share."""
