package command

import "github.com/spf13/cobra"

func (a *app) apply() *cobra.Command { return &cobra.Command{Use: "apply"} }
