# fish completion for exclusive.
function __exclusive_answer
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] completion --answer $words[2..-1] 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :directories
                __fish_complete_directories (commandline -ct)
            case ':command *'
                __fish_complete_subcommand --fcs-skip=(string replace ':command ' '' -- $line)
            case '*'
                echo $line
        end
    end
end
complete -c exclusive -f -a '(__exclusive_answer)'
