# fish completion for stillpoint, made by `stillpoint completions fish`.

function __stillpoint_complete
    set -l before (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l said (command stillpoint __complete fish -- $before "$current" 2>/dev/null)
    # Of --option=value, files are those of the value.
    set -l option (string match --regex -- '^--[^=]+=' "$current")
    set -l value (string replace --regex -- '^--[^=]+=' '' "$current")
    switch "$said[1]"
        case words
            # fish quotes what it puts into the line.
            string join \n -- $said[2..-1]
        case files
            for path in (__fish_complete_path "$value")
                string join '' -- "$option" "$path"
            end
        case folders
            for path in (__fish_complete_directories "$value")
                string join '' -- "$option" "$path"
            end
        case command
            __fish_complete_subcommand --fcs-skip=(contains --index -- -- $before)
    end
end

complete --command stillpoint --no-files --keep-order --arguments '(__stillpoint_complete)'
