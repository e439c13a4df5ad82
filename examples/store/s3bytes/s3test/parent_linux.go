package s3test

import (
	"os/exec"
	"syscall"
)

// dieWithParent sees to it that a test that is killed leaves no server.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
