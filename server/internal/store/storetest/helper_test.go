package storetest_test

import "os"

func isHelper() bool  { return os.Getenv("STORETEST_HELPER") != "" }
func helperMain() int { return 0 }
